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
            // Of values beyond all measure the difference is none.
            text.append(Self.bars[height.isFinite ? Int(height.rounded()) : 0])
        }
    }
}
