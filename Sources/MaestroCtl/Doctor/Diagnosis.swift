import ServiceSupport
import WireJSON

/// What an examination came to.
struct Diagnosis: Sendable, Equatable {
    /// A line for each area that was looked at: what was seen, in a few words.
    private(set) var looked: [(area: Finding.Area, summary: String)] = []
    private(set) var findings: [Finding] = []

    static func == (a: Diagnosis, b: Diagnosis) -> Bool {
        a.findings == b.findings && a.looked.map(\.area) == b.looked.map(\.area)
    }

    mutating func note(_ area: Finding.Area, _ summary: String, _ found: [Finding] = []) {
        looked.append((area, summary))
        findings += found
    }

    var isWell: Bool { !findings.contains(where: \.isWrong) }

    private func worst(in area: Finding.Area) -> Finding.Severity? {
        let severities = findings.filter { $0.area == area }.map(\.severity)
        return [.error, .warning].first(where: severities.contains)
    }

    // MARK: as text

    /// The report for people, no line wider than `width`.
    func lines(width: Int, _ paint: Paint) -> [String] {
        var lines = looked.map { area, summary in
            let (word, colour) = Self.verdict(worst(in: area))
            let name = area.rawValue + String(repeating: " ", count: 11 - area.rawValue.count)
            let text = Printable.shortened(Printable.line(summary), to: width - 20)
            return name + paint(word, colour) + String(repeating: " ", count: 9 - word.count) + text
        }
        for severity in [Finding.Severity.error, .warning, .note] {
            for finding in findings where finding.severity == severity {
                lines.append("")
                lines += Self.lines(of: finding, width: width, paint)
            }
        }
        lines += ["", conclusion(paint)]
        return lines
    }

    private static func verdict(_ worst: Finding.Severity?) -> (String, Paint.Colour) {
        switch worst {
        case .error: ("WRONG", .red)
        case .warning: ("warning", .yellow)
        case .note, nil: ("ok", .green)
        }
    }

    private static func lines(of finding: Finding, width: Int, _ paint: Paint) -> [String] {
        let (word, colour): (String, Paint.Colour?) =
            switch finding.severity {
            case .error: ("WRONG", .red)
            case .warning: ("warning", .yellow)
            case .note: ("note", .blue)
            }
        let title = "\(finding.area.rawValue): \(finding.what)"
        var lines = WrappedText.lines(Printable.line(title), width: width, first: word + "  ", rest: "    ")
        lines[0] = paint(word, colour) + lines[0].dropFirst(word.count)
        for (label, text) in [("    seen  ", finding.evidence), ("    do    ", finding.advice)] where !text.isEmpty {
            lines += WrappedText.lines(Printable.line(text), width: width, first: label, rest: "          ")
        }
        if finding.repair != nil { lines.append("          --repair puts it right") }
        return lines
    }

    private func conclusion(_ paint: Paint) -> String {
        guard !isWell else { return paint("All is well.", .green) }
        let wrong = findings.count { $0.severity == .error }
        let warnings = findings.count { $0.severity == .warning }
        guard wrong > 0 else { return paint(Printable.count(warnings, "warning"), .yellow) }
        let more = warnings > 0 ? ", \(Printable.count(warnings, "warning"))" : ""
        return paint("\(Printable.count(wrong, "thing")) wrong\(more)", .red)
    }

    // MARK: as JSON

    var json: JSON {
        [
            "ok": .bool(isWell), "findings": .array(findings.map(\.json)),
            "looked": .array(
                looked.map { area, summary in
                    let state = worst(in: area)?.rawValue ?? "ok"
                    return ["area": .string(area.rawValue), "state": .string(state), "summary": .string(summary)]
                }
            ),
        ]
    }
}
