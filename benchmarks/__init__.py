"""What `make bench` runs: each leg of the journey, measured and printed as it is."""
