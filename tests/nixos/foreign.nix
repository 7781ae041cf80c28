# Programs that know nothing of the mesh: started when they serve, behind the gateway, and restarted like ours.
{ lib, pkgs }:
let
  examples = ../../examples;
  artifacts = pkgs.runCommand "examples" { nativeBuildInputs = [ pkgs.jdk_headless ]; } ''
    mkdir -p $out/java $out/python $out/php
    javac --release 17 -d classes ${examples}/java/Hello.java
    jar --create --file $out/java/hello.jar --main-class Hello -C classes .
    cp ${examples}/python/hello.py $out/python/
    cp ${examples}/php/hello.php $out/php/
  '';
in
{
  name = "foreign";
  mesh = ./foreign;
  machines.one.berth.artifacts = lib.mkForce artifacts;
  script = ''
    start_shop()
    one = members["one"]
    log_in("alice")
    greeting = operator.succeed("sha256sum /root/mesh/.berth/credentials/java/greeting | head -c 12")

    for service, instances in [("java", 2), ("python", 1), ("php", 1)]:
        with subtest(f"{service} answers through the gateway, with its credential, and to nobody without a token"):
            expect(401, "GET", f"/{service}/hello")
            answered = {expect(200, "GET", f"/{service}/hello", "alice")["instance"] for _ in range(20)}
            assert answered <= {f"{service}-{index}" for index in range(1, instances + 1)}, answered
            assert expect(200, "GET", f"/{service}/hello", "alice")["credential"] == greeting

        with subtest(f"{service} is back when it was killed"):
            pid = property_of(one, f"{service}@1", "MainPID")
            one.succeed(f"kill -9 {pid}")
            one.wait_until_succeeds(f"systemctl is-active {service}@1 && test $(systemctl show -P MainPID {service}@1) != {pid}")
            until(f"an answer of {service}", lambda: answers(f"/{service}/hello", "alice"))

        with subtest(f"{service} is as confined as its runtime allows"):
            one.succeed(f"systemd-analyze security --threshold=19 --no-pager {service}@1 | tail -1 >&2")
  '';
}
