"""The models of the lecture, one page each. Nothing here imports anything here."""
