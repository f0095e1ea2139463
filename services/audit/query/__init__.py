"""What people and commands ask of the database."""
