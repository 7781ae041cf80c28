# The power fails in the middle of orders: what was promised is kept.
{ ... }:
{
  name = "reboot";
  mesh = ./one-machine;
  kind = "nodes";
  machines.one.virtualisation = {
    memorySize = 3072;
    cores = 2;
  };
  script = ''
    start_shop()
    one = members["one"]
    open_shop("alice", "carol")
    chair = new_item(100)
    promised = [order(chair, 1) for _ in range(5)]
    one.crash()

    one.start()
    one.wait_for_unit("berth.target")
    until("an answer", lambda: answers(f"/items/{chair}", "carol"), 600)
    open_shop("alice", "carol")
    # Whether confirmed, or called off at their deadline: each is decided, and the stock says the same.
    outcomes = [decided(document) for document in promised]
    assert set(outcomes) <= {"CONFIRMED", "CANCELLED"}, outcomes
    stock_becomes(chair, (100 - outcomes.count("CONFIRMED"), 0))
  '';
}
