import Dispatch
import Glibc
import Synchronization

/// The thread on which a card's sensors are read, because a driver may hold whoever reads for seconds or for ever.
///
/// A read that outlasts its deadline keeps its thread, and a new thread goes on with the next sensor; the old one
/// ends when its read comes back. A sensor whose read has not come back is left out of the following sweeps, so
/// there are never more threads than ``mostStuck`` + 1.
final class SensorLane: Sendable {
    /// Reads that may hang at a time; with more of them, the rest of a sweep is given up.
    static let mostStuck = 4

    private let readDeadline: Duration
    private let work = DispatchSemaphore(value: 0)
    private let state = Mutex(State())

    private struct State {
        var queue: ArraySlice<any LaneJob> = []
        /// Goes up when a thread is left to its stuck read: only the thread of the present generation takes jobs.
        var generation = 0
        var hasThread = false
        /// When the present thread began its read; nil while it has none.
        var readingSince: ContinuousClock.Instant?
        var stuck = 0
        var sweep: CheckedContinuation<Void, Never>?
        var isClosed = false
    }

    /// - Parameter readDeadline: how long a read may take before the others are read without it.
    init(readDeadline: Duration) { self.readDeadline = readDeadline }

    /// Reads each job once, except those whose last read has not come back, and returns when all were read or left
    /// behind; the latter are told that they were missed. One sweep at a time: another one reads nothing.
    func sweep(_ jobs: [any LaneJob]) async {
        let ready = jobs.filter { $0.prepare() }
        let watchdog = Task { await self.watch() }
        await withCheckedContinuation { continuation in
            if !begin(ready, continuation) { continuation.resume() }
        }
        watchdog.cancel()
        for job in jobs { job.settle() }
    }

    private func begin(_ jobs: [any LaneJob], _ continuation: CheckedContinuation<Void, Never>) -> Bool {
        let hasBegun = state.withLock { state in
            guard !state.isClosed, state.sweep == nil, state.stuck < Self.mostStuck, startThread(&state) else {
                return false
            }
            state.queue = jobs[...]
            state.sweep = continuation
            return true
        }
        if hasBegun { work.signal() }
        return hasBegun
    }

    /// Ends the thread when it has nothing to read any more.
    func close() {
        let continuation = state.withLock { state in
            state.isClosed = true
            return Self.endSweep(&state)
        }
        continuation?.resume()
        work.signal()
    }

    // MARK: the thread

    private func startThread(_ state: inout State) -> Bool {
        guard !state.hasThread else { return true }
        let generation = state.generation
        state.hasThread = Thread.start { [self] in serve(generation) }
        return state.hasThread
    }

    private func serve(_ generation: Int) {
        while true {
            work.wait()
            while let job = next(generation) {
                job.run()
                guard finished(generation) else { return }
            }
            if state.withLock({ $0.isClosed }) { return }
        }
    }

    private func next(_ generation: Int) -> (any LaneJob)? {
        let (job, continuation) = state.withLock { state -> ((any LaneJob)?, CheckedContinuation<Void, Never>?) in
            guard state.generation == generation, !state.isClosed else { return (nil, nil) }
            guard let job = state.queue.popFirst() else { return (nil, Self.endSweep(&state)) }
            state.readingSince = .now
            return (job, nil)
        }
        continuation?.resume()
        return job
    }

    /// Whether the thread is still the lane's; a thread that was left behind ends.
    private func finished(_ generation: Int) -> Bool {
        state.withLock { state in
            guard state.generation == generation else {
                state.stuck -= 1
                return false
            }
            state.readingSince = nil
            return true
        }
    }

    private static func endSweep(_ state: inout State) -> CheckedContinuation<Void, Never>? {
        let continuation = state.sweep
        state.sweep = nil
        state.queue = []
        return continuation
    }

    // MARK: the deadline

    /// Leaves overdue reads behind until the sweep is over.
    private func watch() async {
        var wait = readDeadline
        while !Task.isCancelled {
            do {
                try await Task.sleep(for: wait)
            } catch {
                return
            }
            wait = relieveIfOverdue()
        }
    }

    /// Hands the rest of the sweep to a new thread when the present read is overdue.
    /// - Returns: how long until the next read can be overdue.
    private func relieveIfOverdue() -> Duration {
        let (wait, continuation, isRelieved) = state.withLock { state in
            guard let since = state.readingSince, state.sweep != nil else {
                return (readDeadline, CheckedContinuation<Void, Never>?.none, false)
            }
            let elapsed = ContinuousClock.now - since
            guard elapsed >= readDeadline else { return (readDeadline - elapsed, nil, false) }
            state.generation += 1
            state.stuck += 1
            state.hasThread = false
            state.readingSince = nil
            guard state.stuck < Self.mostStuck, !state.queue.isEmpty, startThread(&state) else {
                return (readDeadline, Self.endSweep(&state), false)
            }
            return (readDeadline, nil, true)
        }
        continuation?.resume()
        if isRelieved { work.signal() }
        return wait
    }
}
