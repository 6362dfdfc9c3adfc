import JobModel
import JobTransport
import ServiceSupport
import WireJSON

/// Everything about one card, for a person: a label and what it stands for, line by line.
struct CardDetails {
    /// Nil when no maestro leads.
    let card: CardView?
    /// What its worker registered; nil when that is not known.
    let facts: JSONObject?

    private static let labelWidth = 16

    func lines(width: Int, paint: Paint) -> [String] {
        let told = (condition + notes + facts(in: facts ?? JSONObject())).flatMap { label, text in
            let first = label + String(repeating: " ", count: max(1, Self.labelWidth - label.count))
            let rest = String(repeating: " ", count: Self.labelWidth)
            let lines = WrappedText.lines(Printable.line(text), width: width, first: first, rest: rest)
            return lines.map { line in
                line.hasPrefix(label) ? paint(label, .grey) + line.dropFirst(label.count) : line
            }
        }
        // What is coloured, or holds gaps that mean something, is not broken into lines.
        let asItIs = { (label: String, text: String) in
            paint(label, .grey) + String(repeating: " ", count: Self.labelWidth - label.count) + text
        }
        return state(paint).map(asItIs) + told + plots(width: width - Self.labelWidth).map(asItIs)
    }

    private func state(_ paint: Paint) -> [(String, String)] {
        guard let card else { return [] }
        let since = card.stateAge.map { " for \(Printable.duration($0))" } ?? ""
        return [("state", paint(Printable.line(card.state), CardText.colour(of: card.state)) + since)]
    }

    private var condition: [(String, String)] {
        guard let card else { return [] }
        var lines: [(String, String)] = []
        if !card.reason.isEmpty { lines.append(("because", card.reason)) }
        lines.append(("jobs", card.running.isEmpty ? "none" : card.running.joined(separator: " ")))
        if let age = card.heartbeatAge { lines.append(("heard", "\(Printable.duration(age)) ago")) }
        return lines
    }

    /// What a person, the leader or the worker has to say of the card.
    private var notes: [(String, String)] {
        guard let card else { return [] }
        var lines: [(String, String)] = []
        for part in ["cordon", "drain", "quarantine", "probation", "hold", "cache"] {
            guard let object = card.json[part]?.objectValue else { continue }
            let isProbed = object["kind"]?.stringValue != "operator"
            let fields = object.filter { isProbed || $0.key != "pause" }.map(Self.clause).filter { !$0.isEmpty }
            lines.append((part, fields.joined(separator: "; ")))
        }
        for finding in card.json["health"]?.arrayValue ?? [] {
            let severity = finding["severity"]?.stringValue ?? "?"
            lines.append(("health", "\(severity): \(finding["evidence"]?.stringValue ?? "?")"))
        }
        return lines
    }

    /// One field of a note: what speaks for itself without its name.
    private static func clause(_ field: JSONObject.Element) -> String {
        let label = spaced(field.key)
        switch field.key {
        case "kind", "reason", "evidence", "code": return plain(field.value)
        case "since", "deadline": return field.value.doubleValue.map { "\(label) \(WallClock.text(seconds: $0))" } ?? ""
        case "pause", "delay", "due_in", "probe_in":
            return field.value.doubleValue.map { "\(label) \(Printable.duration($0))" } ?? ""
        default:
            let (label, text) = fact(field.key, field.value)
            return "\(label) \(text)"
        }
    }

    // MARK: what does not change

    private func facts(in object: JSONObject) -> [(String, String)] {
        // The title tells the model.
        object.filter { $0.key != "card" && $0.key != "kind" }.map { Self.fact($0.key, $0.value) }
    }

    /// A fact with its unit, and a label without it.
    private static func fact(_ key: String, _ value: JSON) -> (String, String) {
        if key.hasSuffix("_bytes"), let bytes = value.doubleValue {
            let gib = bytes / Double(1 << 30)
            return (spaced(key.dropLast(6)), "\(Printable.fixed(gib, 1)) GiB")
        }
        if key.hasSuffix("_c"), let degrees = value.doubleValue {
            return (spaced(key.dropLast(2)), "\(Printable.fixed(degrees, 0)) °C")
        }
        if key.hasSuffix("_hz"), let hertz = value.doubleValue {
            return (spaced(key.dropLast(3)), "\(Printable.fixed(hertz / 1e6, 0)) MHz")
        }
        if key == "pcie_speed_gts_max" { return ("pcie speed max", "\(plain(value)) GT/s") }
        if key.hasPrefix("pcie_width") { return (spaced(key), "x\(plain(value))") }
        return (spaced(key), plain(value))
    }

    private static func spaced(_ key: some StringProtocol) -> String { String(key.map { $0 == "_" ? " " : $0 }) }

    private static func plain(_ value: JSON) -> String {
        if let text = value.stringValue { return text }
        if let flag = value.boolValue { return flag ? "yes" : "no" }
        if let all = value.arrayValue { return all.isEmpty ? "none" : all.map(plain).joined(separator: " ") }
        return String(decoding: value.encoded(), as: UTF8.self)
    }

    // MARK: the last minutes

    /// A line each for temperature, load and power.
    private func plots(width: Int) -> [(String, String)] {
        guard let card, let first = card.history.first, card.history.count > 1 else { return [] }
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
