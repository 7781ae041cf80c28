# A machine of the mesh: one node of the plan.
{ ... }:
{
  system.stateVersion = "26.05";
}
