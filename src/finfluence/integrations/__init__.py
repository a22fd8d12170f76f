"""Other libraries' training loops, recorded: one file for each library, imported only when asked for."""
