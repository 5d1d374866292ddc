"""What a run is: a closed, typed schema and the recipes written in it. Imports no torch."""
