"""Write records: sinks, and the spool behind them."""
