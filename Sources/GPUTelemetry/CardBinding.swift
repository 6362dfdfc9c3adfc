/// The environment that shows a job exactly its card.
///
/// It is a hint to libraries, not a wall; ``DevicePolicy`` is the wall.
package struct CardBinding: Sendable, Equatable {
    /// What is set. Names and values by the documents of each runtime.
    package let variables: [String: String]
    /// What must not be set at all.
    package let removed: Set<String>

    /// Every variable with which somebody could choose another card, or more than one.
    package static let selectors: Set<String> = [
        "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
        "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "DRI_PRIME", "MESA_VK_DEVICE_SELECT", "RUSTICL_ENABLE",
        "POCL_DEVICES", "ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR", "SYCL_DEVICE_FILTER", "GPU_PCI_ADDRESS",
        "GPU_VENDOR", "GPU_RENDER_NODE", "GPU_UUID", "GPU_MODEL",
    ]

    /// The binding to a card.
    package init(to card: Card) {
        var variables = [
            "GPU_PCI_ADDRESS": card.address.description,
            "GPU_VENDOR": card.vendor.rawValue,
            "GPU_MODEL": card.model,
        ]
        variables["GPU_RENDER_NODE"] = card.nodes.render
        variables["GPU_UUID"] = card.uuid
        var removed: Set<String> = []
        switch card.vendor {
        case .nvidia:
            // Without a UUID there is no name that could not mean another card: then CUDA sees none.
            variables["CUDA_VISIBLE_DEVICES"] = card.uuid ?? ""
            variables["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
            variables["ROCR_VISIBLE_DEVICES"] = ""
        case .amd:
            variables["DRI_PRIME"] = card.address.mesaTag
            variables["RUSTICL_ENABLE"] = "radeonsi"
            Self.bindROCm(card, &variables)
            // HIP obeys it too, and an empty one would hide the card.
            removed.insert("CUDA_VISIBLE_DEVICES")
        case .intel:
            variables["DRI_PRIME"] = card.address.mesaTag
            variables["RUSTICL_ENABLE"] = "iris"
            variables["CUDA_VISIBLE_DEVICES"] = ""
            variables["ROCR_VISIBLE_DEVICES"] = ""
        }
        self.init(variables, removed)
    }

    /// The binding of a worker without a card, which runs jobs on the processor.
    package static let processor = CardBinding(
        ["GPU_VENDOR": "cpu", "POCL_DEVICES": "pthread", "CUDA_VISIBLE_DEVICES": "", "ROCR_VISIBLE_DEVICES": ""],
        []
    )

    private init(_ variables: [String: String], _ removed: Set<String>) {
        self.variables = variables
        self.removed = removed.union(Self.selectors.subtracting(variables.keys))
    }

    /// ROCr takes AMD's unique id where the chip has one. Others have only their rank among the nodes that KFD
    /// shows to this process and so to its jobs.
    private static func bindROCm(_ card: Card, _ variables: inout [String: String]) {
        guard let rank = card.kfdRank else {
            variables["ROCR_VISIBLE_DEVICES"] = ""
            return
        }
        variables["ROCR_VISIBLE_DEVICES"] = card.uuid.map { "GPU-\($0)" } ?? String(rank)
        variables["HIP_VISIBLE_DEVICES"] = "0"
        variables["GPU_DEVICE_ORDINAL"] = "0"
    }

    /// Whether the binding alone decides about a variable.
    package func governs(_ name: String) -> Bool { variables[name] != nil || removed.contains(name) }

    /// The variables of an environment that would choose a card and are replaced, by name.
    package func conflicts(in environment: [String: String]) -> [BindingConflict] {
        environment.compactMap { name, value in
            guard Self.selectors.contains(name) else { return nil }
            let bound = variables[name]
            return bound == value ? nil : BindingConflict(name: name, asked: value, bound: bound)
        }
        .sorted { $0.name < $1.name }
    }
}

/// A variable with which a job would have chosen its card itself.
package struct BindingConflict: Sendable, Equatable, CustomStringConvertible {
    package let name: String
    /// What the job or the worker's environment has.
    package let asked: String
    /// What the job gets instead; nil when the variable is removed.
    package let bound: String?

    package var description: String {
        let instead = bound.map { "set to \"\($0)\"" } ?? "removed"
        return "\(name)=\"\(asked)\" would choose a card; it is \(instead), since the job has its card already"
    }
}
