import JobModel
import Synchronization

/// Until when this process may act as the leader without asking: read by every effect that is not a compare-and-set.
final class LeaseTrust: Sendable {
    private let state: Mutex<Timestamp>

    init(until: Timestamp) { state = Mutex(until) }

    /// The deadline as it stands now.
    var until: Timestamp { state.withLock { $0 } }

    func extend(until: Timestamp) {
        state.withLock { $0 = max($0, until) }
    }

    /// The lead is over.
    func revoke() {
        state.withLock { $0 = Timestamp(nanoseconds: .min) }
    }
}
