"""What operators order: each command a signed event that whoever obeys it checks for itself."""
