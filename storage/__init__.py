"""What is kept: the log, the lake, the ledger, and the upkeep of all three."""
