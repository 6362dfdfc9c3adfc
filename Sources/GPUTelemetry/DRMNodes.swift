import CDRM

/// The device nodes of a card, found by its PCI address.
package struct DRMNodes: Sendable, Equatable {
    /// `/dev/dri/cardN`, whose N says nothing about the card's place.
    package let primary: String?
    /// `/dev/dri/renderDN`: what jobs open.
    package let render: String?

    /// All nodes of this machine; empty when there is no DRM driver at all.
    static func all() -> [PCIAddress: DRMNodes] {
        var found = [cdrm_nodes](repeating: cdrm_nodes(), count: 256)
        let count = unsafe cdrm_list(&found, found.count)
        guard count > 0 else { return [:] }
        var all: [PCIAddress: DRMNodes] = [:]
        for node in found.prefix(Int(count)) {
            let address = PCIAddress(domain: node.domain, bus: node.bus, device: node.device, function: node.function)
            let (primary, render) = (text(of: node.primary), text(of: node.render))
            all[address] = DRMNodes(
                primary: primary.isEmpty ? nil : primary,
                render: render.isEmpty ? nil : render
            )
        }
        return all
    }

    /// What the driver behind a node calls itself and its version. Wakes a sleeping card.
    static func driver(of node: String) throws(SensorFault) -> (name: String, version: String) {
        var name = [CChar](repeating: 0, count: 64)
        var version = [CChar](repeating: 0, count: 64)
        let code = unsafe cdrm_version(node, &name, name.count, &version, version.count)
        guard code == 0 else { throw .system(code) }
        return (text(name), text(version))
    }

    /// The N of renderDN.
    var renderMinor: Int? {
        guard let render, let name = render.split(separator: "/").last, name.hasPrefix("renderD") else { return nil }
        return Int(name.dropFirst("renderD".count))
    }
}
