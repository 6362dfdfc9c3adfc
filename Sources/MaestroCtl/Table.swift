import ServiceSupport

/// A table for people: aligned columns, those with free text cut so that a line fits.
struct Table {
    struct Column {
        var title: String
        var isNumber = false
        /// Whether its cells may be cut.
        var isElastic = false
    }

    /// What becomes of a last column that does not fit.
    enum Overflow {
        case cut
        /// It goes on in further lines.
        case wrapped
    }

    struct Cell: ExpressibleByStringLiteral, ExpressibleByStringInterpolation {
        var text: String
        var colour: Paint.Colour?

        init(_ text: String, _ colour: Paint.Colour? = nil) {
            self.text = Printable.line(text)
            self.colour = colour
        }

        init(stringLiteral value: String) { self.init(value) }
    }

    private(set) var columns: [Column]
    private(set) var rows: [[Cell]] = []

    /// - Parameter titles: a title that begins with `>` is of a column of numbers, one that begins with `~` of a column
    ///   that may be cut; the last one may be where no other is marked so.
    init(titles: String...) {
        columns = titles.map { title in
            switch title.first {
            case ">": Column(title: String(title.dropFirst()), isNumber: true)
            case "~": Column(title: String(title.dropFirst()), isElastic: true)
            default: Column(title: title)
            }
        }
        if !columns.contains(where: \.isElastic), let last = columns.indices.last { columns[last].isElastic = true }
    }

    /// - Parameter row: one cell for each column.
    mutating func add(_ row: [Cell]) { rows.append(row) }

    /// The lines of the table, none wider than `width` as long as the columns that are not cut fit.
    func lines(width: Int, paint: Paint, overflow: Overflow = .cut) -> [String] {
        let widths = widths(within: width)
        let header = columns.map { Cell($0.title, .grey) }
        return ([header] + rows).flatMap { row -> [String] in
            guard overflow == .wrapped, let last = row.last, row.count == columns.count else {
                return [line(row, widths, paint)]
            }
            let pieces = WrappedText.lines(last.text, width: max(1, widths.last ?? width))
            let rest = widths.dropLast().reduce(0) { $0 + $1 + 2 }
            let first = line(row.dropLast() + [Cell(pieces.first ?? "", last.colour)], widths, paint)
            return [first]
                + pieces.dropFirst().map { String(repeating: " ", count: rest) + paint($0, last.colour) }
        }
    }

    /// The width of each column: as wide as its widest cell, the elastic ones narrower where the line is too long.
    private func widths(within width: Int) -> [Int] {
        var widths = columns.indices.map { index in
            rows.reduce(columns[index].title.count) { max($0, index < $1.count ? $1[index].text.count : 0) }
        }
        var excess = widths.reduce(0, +) + 2 * (widths.count - 1) - width
        while excess > 0 {
            let widest = columns.indices.filter { columns[$0].isElastic && widths[$0] > columns[$0].title.count }
                .max { (widths[$0], -$0) < (widths[$1], -$1) }
            guard let widest else { break }
            widths[widest] -= 1
            excess -= 1
        }
        return widths
    }

    private func line(_ row: [Cell], _ widths: [Int], _ paint: Paint) -> String {
        var line = ""
        for (index, cell) in row.enumerated() where index < widths.count {
            let isLast = index == widths.count - 1
            let text = Printable.shortened(cell.text, to: widths[index], isCut: columns[index].isElastic)
            let padding = String(repeating: " ", count: max(0, widths[index] - text.count))
            let painted = paint(text, cell.colour)
            if columns[index].isNumber {
                line += padding + painted
            } else {
                line += isLast ? painted : painted + padding
            }
            if !isLast { line += "  " }
        }
        return line
    }
}

/// Text from outside made fit for a terminal.
enum Printable {
    /// One line without control characters: what a job is called cannot move the cursor.
    static func line(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: isControl) else { return text }
        var clean = String.UnicodeScalarView()
        for scalar in text.unicodeScalars { clean.append(isControl(scalar) ? " " : scalar) }
        return String(clean)
    }

    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value)
    }

    static func shortened(_ text: String, to width: Int, isCut: Bool = true) -> String {
        guard isCut, text.count > width else { return text }
        return width > 1 ? text.prefix(width - 1) + "…" : String(text.prefix(width))
    }

    /// How long something took or is ago, in at most six characters: `0.25s`, `12.3s`, `4m05s`, `3h12m`, `9d04h`.
    static func duration(_ seconds: Double) -> String {
        func padded(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }
        guard seconds.isFinite, seconds < 1e12 else { return "?" }
        let seconds = max(0, seconds)
        if seconds < 9.995 { return "\(fixed(seconds, 2))s" }
        if seconds < 59.95 { return "\(fixed(seconds, 1))s" }
        let whole = Int(seconds.rounded())
        if whole < 3600 { return "\(whole / 60)m\(padded(whole % 60))s" }
        if whole < 86_400 { return "\(whole / 3600)h\(padded(whole / 60 % 60))m" }
        return "\(whole / 86_400)d\(padded(whole / 3600 % 24))h"
    }

    /// A number with a fixed count of digits after the point; one that is beyond all measure as it is.
    static func fixed(_ number: Double, _ digits: Int) -> String {
        let scale = (0..<digits).reduce(1) { scale, _ in scale * 10 }
        guard let scaled = Int(exactly: (abs(number) * Double(scale)).rounded()) else { return "\(number)" }
        let fraction = String(scaled % scale)
        let sign = number < 0 && scaled > 0 ? "-" : ""
        let zeros = String(repeating: "0", count: max(0, digits - fraction.count))
        return digits == 0 ? "\(sign)\(scaled)" : "\(sign)\(scaled / scale).\(zeros)\(fraction)"
    }

    /// A count with its noun: `1 job`, `3 jobs`.
    static func count(_ number: Int, _ noun: String) -> String { "\(number) \(noun)\(number == 1 ? "" : "s")" }

    /// Bytes as people read them: `512 B`, `1.5 MB`.
    static func bytes(_ count: UInt64) -> String {
        var value = Double(count)
        guard value >= 1000 else { return "\(count) B" }
        for unit in ["kB", "MB", "GB", "TB"] {
            value /= 1000
            if value < 999.5 { return "\(fixed(value, value < 9.95 ? 1 : 0)) \(unit)" }
        }
        return "\(fixed(value, 0)) TB"
    }
}
