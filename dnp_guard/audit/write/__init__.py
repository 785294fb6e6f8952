"""Write audit records to sinks (a file, a database, a stream), and store what a failing sink misses in a spool."""
