import JobModel

/// The last readings of a card, for people: a ring of fixed size.
struct CardHistory: Sendable {
    struct Sample: Sendable {
        let time: Timestamp
        let temperature: Double?
        let busyPercent: Double?
        let power: Double?
    }

    /// Ten minutes of readings every five seconds.
    static let capacity = 120

    private var samples: [Sample] = []
    /// Where the oldest one stands when the ring is full.
    private var oldest = 0

    mutating func add(_ reading: CardReading, at now: Timestamp) {
        let sample = Sample(
            time: now,
            temperature: reading.temperature,
            busyPercent: reading.busyPercent,
            power: reading.power
        )
        guard samples.count == Self.capacity else { return samples.append(sample) }
        samples[oldest] = sample
        oldest = (oldest + 1) % Self.capacity
    }

    /// Oldest first.
    var inOrder: [Sample] { Array(samples[oldest...] + samples[..<oldest]) }
}
