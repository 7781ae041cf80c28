# The checks of the flake that start machines, and those that only evaluate them.
{ ... }: { }
