"""What runs beside the server, where the computing is. Standard library only."""
