# Limits are in force: a service that eats memory is stopped inside of its own, and its neighbours do not notice.
{ pkgs, self }:
let
  greedy = pkgs.writeText "greedy.py" ''
    import http.server
    import os

    kept = []


    class Greedy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/eat":
                kept.append(b"x" * (256 << 20))
            self.send_response(204)
            self.end_headers()


    http.server.HTTPServer(("", int(os.environ["PORT"])), Greedy).serve_forever()
  '';
  service = port: {
    runtime = "python";
    artifact = greedy;
    command = [
      "python3"
      "\${ARTIFACT}"
    ];
    memory = "64MiB";
    cpu = 0.5;
    inherit port;
  };
in
pkgs.testers.runNixOSTest {
  name = "sizes";
  nodes.machine = {
    imports = [ self.nixosModules.default ];
    berth = {
      credentials.source = "host";
      services = {
        greedy = service 8080;
        neighbour = service 8081;
      };
    };
    environment.systemPackages = [ pkgs.curl ];
    virtualisation.memorySize = 1024;
    # The test framework has the whole machine end when memory does, whosever it is.
    boot.kernel.sysctl."vm.panic_on_oom" = 0;
    system.stateVersion = "26.05";
  };
  testScript = ''
    machine.wait_for_unit("berth.target")
    for port in [8080, 8081]:
        machine.wait_until_succeeds(f"curl -sf http://localhost:{port}/")

    def of(unit, name):
        return machine.succeed(f"systemctl show -P {name} {unit}").strip()

    with subtest("the kernel has the limits"):
        group = "/sys/fs/cgroup" + of("greedy@1", "ControlGroup")
        assert group.startswith("/sys/fs/cgroup/berth.slice/"), group
        for file, value in [("memory.max", "67108864"), ("memory.swap.max", "0"), ("cpu.max", "50000 100000"), ("pids.max", "512"), ("memory.oom.group", "1")]:
            found = machine.succeed(f"cat {group}/{file}").strip()
            assert found == value, f"{file} is {found}"

    with subtest("who eats more is stopped and started again, and nobody else notices"):
        neighbour, before = of("neighbour@1", "InvocationID"), of("greedy@1", "InvocationID")
        # Its connection breaks off (52 and 56 of curl): it is killed, and not only slowed down.
        status, _ = machine.execute("curl -s --max-time 300 http://localhost:8080/eat")
        assert status in (52, 56), status
        machine.wait_until_succeeds("curl -sf --max-time 10 http://localhost:8080/")
        assert of("greedy@1", "InvocationID") != before
        machine.succeed("journalctl -u greedy@1 | grep -i 'oom'")
        machine.succeed("curl -sf http://localhost:8081/")
        assert of("neighbour@1", "InvocationID") == neighbour
  '';
}
