"""The lecture: what is trained and shown, and the page that is made of it."""
