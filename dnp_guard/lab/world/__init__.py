"""The embedded world as text and as untrained models: for those who train and measure."""
