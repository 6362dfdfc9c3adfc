import JobTransport
import ServiceSupport
import WireJSON

/// The table of cards.
enum CardText {
    static func table(_ cards: [CardView]) -> Table {
        var table = Table(titles: "CARD", "~MODEL", "STATE", ">BUSY", ">TEMP", ">POWER", ">VRAM", ">SINCE", "~JOB")
        for card in cards {
            table.add([
                Table.Cell(card.gpu.text),
                Table.Cell(Printable.shortened(shortModel(card.model), to: 15)),
                Table.Cell(card.state, colour(of: card.state)),
                Table.Cell(card.busyPercent.map { "\(Printable.fixed($0, 0))%" } ?? "-"),
                Table.Cell(temperature(card)),
                Table.Cell(card.power.map { "\(Printable.fixed($0, 0))W" } ?? "-"),
                Table.Cell(memory(card)),
                Table.Cell(card.stateAge.map { Printable.duration($0) } ?? "-"),
                Table.Cell(card.running.joined(separator: " ")),
            ])
        }
        return table
    }

    /// Why the cards that get no job get none, a line each.
    static func reasons(_ cards: [CardView]) -> [String] {
        cards.filter { !$0.reason.isEmpty }.map { "card \($0.gpu) \(Printable.line($0.reason))" }
    }

    /// Green for what works, red for what a person should look at.
    static func colour(of state: String) -> Paint.Colour {
        switch state {
        case "up": .green
        case "gone", "quarantined", "overheated", "unhealthy": .red
        default: .yellow
        }
    }

    /// A model without what every card of its vendor is called: "GTX 1660", "RX 580".
    static func shortModel(_ model: String?) -> String {
        guard let model else { return "-" }
        // libpci tells the chip, and in brackets what is sold with it.
        var name = Substring(model)
        if let open = model.lastIndex(of: "["), let close = model.lastIndex(of: "]"), open < close {
            name = model[model.index(after: open)..<close]
        }
        let noise: Set<Substring> = ["NVIDIA", "GeForce", "AMD", "Radeon", "Intel", "Series"]
        let words = name.split(separator: " ").filter { !noise.contains($0) }
        return words.isEmpty ? model : words.joined(separator: " ")
    }

    private static func temperature(_ card: CardView) -> String {
        guard let now = card.temperature else { return "-" }
        let limit = card.temperatureLimit.map { "/\(Printable.fixed($0, 0))" } ?? ""
        return "\(Printable.fixed(now, 0))\(limit)°C"
    }

    /// Used and all of it, in GiB, as cards are sold.
    private static func memory(_ card: CardView) -> String {
        let gib = Double(1 << 30)
        guard let used = card.vramUsed else { return "-" }
        let total = card.vramTotal.map { "/\(Printable.fixed($0 / gib, 0))" } ?? ""
        return "\(Printable.fixed(used / gib, 1))\(total)G"
    }
}
