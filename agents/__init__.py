"""What thinks: for now, the demo application."""
