"""Write records: sinks, the spool behind them, and previews."""
