# The `berth.*` options.
{ ... }: { }
