"""Rounds over Flower: clients on other machines, a clock that is the wall's."""
