# The lines of `cargo tree` ("name v1.2.3 (where)|licence") as input; see sbom.nix for the arguments. Nothing in the result depends on when or
# where it is made.

def store_name: sub("^.*/[0-9a-z]{32}-"; "");
def split_version: capture("^(?<name>.+?)(-(?<version>[0-9].*))?$");

def of_path:
  (.path | store_name | split_version) as $parsed
  | {
      type: "library",
      "bom-ref": (.path | sub("^.*/"; "")),
      name: $parsed.name,
      purl: ("pkg:nix/" + ($parsed.name | @uri) + (if $parsed.version then "@" + ($parsed.version | @uri) else "" end)),
      properties: [{ name: "nix:nar_hash", value: .narHash }, { name: "nix:store_path", value: .path }]
    }
  + (if $parsed.version then { version: $parsed.version } else {} end);

def of_crate:
  capture("^(?<name>[^ ]+) v(?<version>[^ |]+)[^|]*\\|(?<license>.*)$")
  | ($checksums[0]["\(.name)@\(.version)"]) as $checksum
  | {
      type: "library",
      "bom-ref": "pkg:cargo/\(.name)@\(.version)",
      name,
      version,
      purl: "pkg:cargo/\(.name)@\(.version)"
    }
  + (if .license != "" then { licenses: [{ expression: (.license | gsub("/"; " OR ")) }] } else {} end)
  + (if $checksum then { hashes: [{ alg: "SHA-256", content: $checksum }] } else {} end);

($attributes[0].closure) as $closure
| ([split("\n")[] | select(. != "") | of_crate] | unique_by(.["bom-ref"]) | map(select(.name != $name or .hashes))) as $crates
| ($package | sub("^.*/"; "")) as $self
| {
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    version: 1,
    metadata: { component: { type: "application", "bom-ref": $self, name: $name, version: $version } },
    components: ([$closure[] | select(.path != $package) | of_path] + $crates | sort_by(.["bom-ref"])),
    dependencies: (
      [
        $closure[]
        | .path as $path
        | {
            ref: ($path | sub("^.*/"; "")),
            dependsOn: (
              [.references[] | select(. != $path) | sub("^.*/"; "")]
              + (if $path == $package then [$crates[]["bom-ref"]] else [] end)
              | sort
            )
          }
      ]
      + [$crates[] | { ref: .["bom-ref"] }]
      | sort_by(.ref)
    )
  }
