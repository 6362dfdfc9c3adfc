import WireJSON

extension Card {
    /// The fixed facts for `gpu.worker.up` and `gpu-worker --list --json`; what is not known is left out.
    package var facts: JSONObject {
        var facts: JSONObject = [
            "pci": .string(address.description),
            "card": .string(model),
            "vendor": .string(vendor.rawValue),
            "pci_id": .string(pciID),
        ]
        facts["uuid"] = uuid.map { .string($0) }
        facts["vram_total_bytes"] = vram.map { .int($0) }
        facts["driver"] = driver.map { .string($0) }
        facts["driver_version"] = driverVersion.map { .string($0) }
        facts["render_node"] = nodes.render.map { .string($0) }
        facts["pcie_width"] = link.width.map { .int($0) }
        facts["pcie_width_max"] = link.maxWidth.map { .int($0) }
        facts["pcie_speed_gts_max"] = link.maxSpeed.map { .double($0) }
        facts["runtimes"] = .array(runtimes.map { .string($0.rawValue) })
        facts["temp_critical_c"] = temperatureLimits.critical.map { .double($0) }
        facts["temp_emergency_c"] = temperatureLimits.emergency.map { .double($0) }
        facts["core_clock_max_hz"] = maxCoreClock.map { .double($0) }
        if isDisplay { facts["display"] = true }
        if isIntegrated { facts["integrated"] = true }
        if !degradations.isEmpty { facts["degraded"] = .array(degradations.map { .string($0) }) }
        return facts
    }
}

extension CardInventory {
    /// What `gpu-worker --list --json` prints: an object with `cards`, `left_out` and `notes`.
    package var json: JSON {
        let cards = cards.map { card -> JSON in
            var facts: JSONObject = ["gpu_id": .int(card.number)]
            for field in card.facts { facts[field.key] = field.value }
            return .object(facts)
        }
        let leftOut = leftOut.map { device -> JSON in
            [
                "pci": .string(device.address.description), "card": .string(device.model),
                "reason": .string(device.reason),
            ]
        }
        return ["cards": .array(cards), "left_out": .array(leftOut), "notes": .array(notes.map { .string($0) })]
    }

    /// What `gpu-worker --list` prints: a table, then what is wrong and what was left out.
    package var table: String {
        var lines: [String] = []
        if cards.isEmpty {
            lines.append("no graphics card: gpu-worker runs jobs on the processor")
        } else {
            let header = ["N", "PCI", "CARD", "VRAM", "DRIVER", "LINK", "RUNTIMES"]
            lines += Self.aligned([header] + cards.map(Self.row))
        }
        for card in cards {
            lines += card.degradations.map { "card \(card.number) is degraded: \($0)" }
        }
        lines += leftOut.map { "left out: \($0.address) \($0.model): \($0.reason)" }
        lines += notes.map { "note: \($0)" }
        return lines.joined(separator: "\n")
    }

    private static func row(_ card: Card) -> [String] {
        let vram = card.vram.map { "\(($0 + (1 << 29)) >> 30) GiB" } ?? "-"
        let driver = [card.driver, card.driverVersion].compactMap { $0 }.joined(separator: " ")
        let link = card.link.width.map { "x\($0)" + (card.link.maxWidth.map { " of x\($0)" } ?? "") } ?? "-"
        let runtimes = card.runtimes.map(\.rawValue).joined(separator: " ")
        return [
            String(card.number), card.address.description, card.model, vram, driver.isEmpty ? "-" : driver, link,
            runtimes.isEmpty ? "-" : runtimes,
        ]
    }

    private static func aligned(_ rows: [[String]]) -> [String] {
        let widths = (rows.first ?? []).indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            let cells = zip(row, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }
            return cells.joined(separator: "  ").trimmed ?? ""
        }
    }
}
