"""What is known about a customer, an offer and the moment. Feast lives here."""
