"""How far it goes: sizes that are tried with the real thing, too long for the suite."""
