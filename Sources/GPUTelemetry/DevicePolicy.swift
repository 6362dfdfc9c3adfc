/// The lines that wall a systemd unit, and every job in it, to one card.
package enum DevicePolicy {
    /// The device nodes that a worker of the card needs, and its jobs.
    package static func nodes(for card: Card, paths: SystemPaths = .machine) -> [String] {
        var nodes: [String] = []
        if card.driver == "nvidia" {
            guard let minor = card.nvidiaMinor else { return [] }
            nodes = ["/dev/nvidia\(minor)", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"]
        } else if let render = card.nodes.render {
            // The number of the node may be another after a restart; the link by address is the card's own.
            let byPath = "/dev/dri/by-path/pci-\(card.address)-render"
            nodes = [SysfsFiles.exists("\(paths.dev)\(byPath.dropFirst(4))") ? byPath : render]
        }
        if card.runtimes.contains(.rocm) { nodes.append("/dev/kfd") }
        return nodes
    }

    /// What `gpu-worker --print-device-policy` prints, for a drop-in file of the unit.
    package static func lines(for card: Card, paths: SystemPaths = .machine) -> [String] {
        let nodes = nodes(for: card, paths: paths)
        let comment = "# \(card.number): \(card.address) \(card.model)"
        guard !nodes.isEmpty else {
            return [comment, "# no device node is known: no job can use this card", "[Service]", "DevicePolicy=closed"]
        }
        return [comment, "[Service]", "DevicePolicy=closed"] + nodes.map { "DeviceAllow=\($0) rw" }
    }

    /// A worker without a card needs no device but those that every program has.
    package static let processorLines = ["# no graphics card", "[Service]", "DevicePolicy=closed"]
}
