"""What is asked: SQL in closed, killable workers over a project's own files."""
