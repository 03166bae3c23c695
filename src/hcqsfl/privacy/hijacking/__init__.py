"""A server that trains the clients' front towards a goal of its own, and how clients notice."""
