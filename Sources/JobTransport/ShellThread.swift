import Dispatch
import Synchronization

/// The thread of a shell: its task and the child tasks that carry actions out run there, one after the other.
///
/// Nearly all of them only send something, or hand an outcome to the mailbox. On the pool of threads each of these steps
/// would wake another thread, which costs more than the step. What blocks does not belong here.
///
/// For `withTaskExecutorPreference`, which child tasks inherit. To be stopped when that has returned.
package final class ShellThread: TaskExecutor {
    private struct State {
        var jobs: [UnownedJob] = []
        var isWaiting = false
        var isStopped = false

        /// - Returns: whether the thread has to be woken.
        mutating func wake() -> Bool {
            defer { isWaiting = false }
            return isWaiting
        }
    }

    private let state = Mutex(State())
    private let more = DispatchSemaphore(value: 0)

    /// Starts the thread.
    package init(label: String) {
        // A queue of its own has a thread of its own for as long as it works.
        DispatchQueue(label: label).async { [self] in run() }
    }

    package func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        let isWaiting = state.withLock { state in
            state.jobs.append(job)
            return state.wake()
        }
        if isWaiting { more.signal() }
    }

    /// Ends the thread after what is enqueued now.
    package func stop() {
        let isWaiting = state.withLock { state in
            state.isStopped = true
            return state.wake()
        }
        if isWaiting { more.signal() }
    }

    private func run() {
        let executor = asUnownedTaskExecutor()
        var jobs: [UnownedJob] = []
        while true {
            let isOver = state.withLock { state in
                swap(&jobs, &state.jobs)
                if jobs.isEmpty, !state.isStopped { state.isWaiting = true }
                return jobs.isEmpty && state.isStopped
            }
            if isOver { return }
            if jobs.isEmpty { more.wait() }
            for job in jobs { job.runSynchronously(on: executor) }
            jobs.removeAll(keepingCapacity: true)
        }
    }
}
