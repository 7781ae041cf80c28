# Another configuration on a machine that runs: one copy more and another memory limit, while requests go on.
{ ... }:
{
  name = "rebuild";
  mesh = ./one-machine;
  kind = "nodes";
  machines.one = {
    virtualisation = {
      memorySize = 3072;
      cores = 2;
    };
    system.switch.enable = true;
    specialisation.larger.configuration.berth.services.item-management = {
      memory = "192MiB";
      instances."3".start = true;
    };
  };
  script = ''
    start_shop()
    one = members["one"]
    open_shop("carol")
    chair = new_item(10)
    database = property_of(one, "item-management-db", "InvocationID")
    documents = property_of(one, "eshop-documents@1", "InvocationID")

    operator.succeed("touch /root/go")
    operator.succeed(
        "(while test -e /root/go; do"
        f" curl -sS -o /dev/null --max-time 60 --cacert /root/mesh/.berth/ca.pem -H @/root/carol -w '%{{http_code}}\\n' {URL}/items/{chair};"
        " done >/root/answers 2>&1) </dev/null >/dev/null 2>&1 &"
    )
    one.succeed("/run/current-system/specialisation/larger/bin/switch-to-configuration test >&2")
    for index in [1, 2, 3]:
        one.wait_for_unit(f"item-management@{index}.service")
        assert property_of(one, f"item-management@{index}", "MemoryMax") == str(192 * 1024 * 1024)
    operator.succeed("rm /root/go")

    with subtest("no request failed"):
        assert set(operator.succeed("sort -u /root/answers").split()) == {"200"}, operator.succeed("sort /root/answers | uniq -c")
    with subtest("what did not change was left alone"):
        assert property_of(one, "item-management-db", "InvocationID") == database
        assert property_of(one, "eshop-documents@1", "InvocationID") == documents
  '';
}
