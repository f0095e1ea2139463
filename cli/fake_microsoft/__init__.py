"""`scepstream fake-microsoft`: Entra ID, Graph and Intune for trials and tests."""
