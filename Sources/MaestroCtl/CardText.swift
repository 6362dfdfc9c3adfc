import JobTransport
import ServiceSupport
import WireJSON

/// Cards in words and small pictures.
enum CardText {
    static func table(_ cards: [CardView]) -> Table {
        var table = Table(titles: "CARD", "MODEL", "STATE", ">BUSY", ">TEMP", ">POWER", ">VRAM", ">SINCE", "JOB")
        for card in cards {
            table.add([
                Table.Cell(card.gpu.text),
                Table.Cell(Printable.shortened(shortModel(card.model), to: 12)),
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
        let noise: Set<Substring> = ["NVIDIA", "GeForce", "AMD", "Radeon", "Intel"]
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

    // MARK: one card

    /// Everything about a card, for a person.
    /// - Parameters:
    ///   - card: nil when no maestro leads.
    ///   - facts: what its worker registered; nil when that is not known.
    static func details(of card: CardView?, facts: JSONObject?, width: Int, paint: Paint) -> [String] {
        var lines: [(String, String)] = []
        if let card {
            let since = card.stateAge.map { " for \(Printable.duration($0))" } ?? ""
            lines.append(("state", paint(card.state, colour(of: card.state)) + since))
            if !card.reason.isEmpty { lines.append(("because", Printable.line(card.reason))) }
            lines += notes(on: card)
            lines.append(("jobs", card.running.isEmpty ? "none" : card.running.joined(separator: " ")))
            if let age = card.heartbeatAge { lines.append(("heard", "\(Printable.duration(age)) ago")) }
        }
        for field in facts ?? JSONObject() { lines.append((label(field.key), text(field.value, of: field.key))) }
        if let card { lines += plots(of: card, width: width - labelWidth) }
        return lines.map { label, text in
            paint(label, .grey) + String(repeating: " ", count: max(1, labelWidth - label.count)) + text
        }
    }

    private static let labelWidth = 14

    /// What a person or the leader has said of the card.
    private static func notes(on card: CardView) -> [(String, String)] {
        var lines: [(String, String)] = []
        for part in ["cordon", "drain", "quarantine", "probation", "hold", "cache"] {
            guard let object = card.json[part]?.objectValue else { continue }
            let fields = object.map { "\($0.key) \(text($0.value, of: $0.key))" }
            lines.append((part, fields.joined(separator: ", ")))
        }
        for finding in card.json["health"]?.arrayValue ?? [] {
            let severity = finding["severity"]?.stringValue ?? "?"
            lines.append(("health", "\(severity): \(Printable.line(finding["evidence"]?.stringValue ?? "?"))"))
        }
        return lines
    }

    private static func label(_ key: String) -> String {
        String(key.map { $0 == "_" ? " " : $0 }.prefix(labelWidth - 1))
    }

    private static func text(_ value: JSON, of key: String) -> String {
        if key == "since", let seconds = value.doubleValue { return WallClock.text(seconds: seconds) }
        if key.hasSuffix("_bytes"), let bytes = value.unsignedValue { return Printable.bytes(bytes) }
        if let text = value.stringValue { return Printable.line(text) }
        if let all = value.arrayValue { return all.map { text($0, of: "") }.joined(separator: " ") }
        return String(decoding: value.encoded(), as: UTF8.self)
    }

    /// The last minutes: a line each for temperature, load and power.
    private static func plots(of card: CardView, width: Int) -> [(String, String)] {
        guard let first = card.history.first, card.history.count > 1 else { return [] }
        let rows: [(String, KeyPath<CardView.Sample, Double?>, String)] = [
            ("temperature", \.temperature, "°C"), ("busy", \.busyPercent, "%"), ("power", \.power, "W"),
        ]
        let lines = rows.compactMap { name, path, unit -> (String, String)? in
            let values = card.history.map { $0[keyPath: path] }
            guard let plot = Sparkline(values, width: max(8, width - 16)) else { return nil }
            let range = "\(Printable.fixed(plot.lowest, 0)) to \(Printable.fixed(plot.highest, 0)) \(unit)"
            return (name, "\(plot.text)  \(range)")
        }
        return lines.isEmpty ? [] : lines + [("", "the last \(Printable.duration(first.age))")]
    }
}

/// A row of small bars: how a value went.
struct Sparkline {
    let text: String
    let lowest: Double
    let highest: Double

    private static let bars = Array("▁▂▃▄▅▆▇█")

    /// - Parameters:
    ///   - values: oldest first; nil for what was not read, which leaves a gap.
    ///   - width: characters at most; where there are more values, each stands for the highest of several.
    /// - Returns: nil when nothing was read.
    init?(_ values: [Double?], width: Int) {
        let known = values.compactMap { $0 }
        guard let lowest = known.min(), let highest = known.max(), width > 0 else { return nil }
        let columns = min(width, values.count)
        let span = highest - lowest
        self.lowest = lowest
        self.highest = highest
        text = (0..<columns).reduce(into: "") { text, column in
            let range = column * values.count / columns..<(column + 1) * values.count / columns
            guard let value = values[range].compactMap({ $0 }).max() else { return text.append(" ") }
            let height = span > 0 ? (value - lowest) / span * Double(Self.bars.count - 1) : 0
            text.append(Self.bars[Int(height.rounded())])
        }
    }
}
