import JobModel

/// The attempts that were started in this life, as far as they are remembered: a stream that a power cut has put back
/// offers them again, and no attempt is started twice.
struct PastAttempts: Sendable {
    /// A power cut takes what was written in the last minutes.
    private static let limit = 4096

    private var known: Set<AttemptID> = []
    /// In the order of their starts, from ``oldest`` on, round and round.
    private var order: [AttemptID] = []
    private var oldest = 0

    func contains(_ attempt: AttemptID) -> Bool { known.contains(attempt) }

    mutating func insert(_ attempt: AttemptID) {
        guard known.insert(attempt).inserted else { return }
        guard order.count == Self.limit else { return order.append(attempt) }
        known.remove(order[oldest])
        order[oldest] = attempt
        oldest = (oldest + 1) % Self.limit
    }
}
