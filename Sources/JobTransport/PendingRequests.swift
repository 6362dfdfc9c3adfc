import JobModel
import Synchronization

/// The requests that wait for an answer, and the subject at which each waits for it.
package final class PendingRequests: Sendable {
    private struct State {
        var lastNumber: UInt64 = 0
        var subjects: [RequestToken: String] = [:]
    }

    private let limit: Int
    private let state = Mutex(State())

    /// - Parameter limit: how many may wait at once.
    package init(limit: Int) { self.limit = limit }

    /// A name for a request.
    /// - Parameter subject: where its answer is waited for; nil when nobody waits.
    /// - Returns: nil when too many wait.
    package func add(_ subject: String?) -> RequestToken? {
        state.withLock { state in
            guard state.subjects.count < limit else { return nil }
            state.lastNumber += 1
            let token = RequestToken(state.lastNumber)
            if let subject { state.subjects[token] = subject }
            return token
        }
    }

    /// Where to answer a request; nil when it was answered before, or nobody waits.
    package func take(_ token: RequestToken) -> String? { state.withLock { $0.subjects.removeValue(forKey: token) } }

    /// Leaves all of them unanswered.
    package func removeAll() { state.withLock { $0.subjects = [:] } }
}
