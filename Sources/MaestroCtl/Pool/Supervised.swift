import Glibc
import ServiceSupport
import Synchronization

/// One program of the pool, kept running until it is told to stop.
final class Supervised: Sendable {
    let specification: ChildProcess.Specification
    /// Called with one line when the program died or could not be started.
    private let tell: @Sendable (String) -> Void

    private struct State {
        var child: ChildProcess?
        var isStopping = false
        var failures = 0
        /// How long the log was when this life began.
        var logStart: UInt64 = 0
        var pause: Task<Void, Never>?
    }
    private let state = Mutex(State())

    /// A program that lived this long was well: its next death is a first one.
    private static let wellAfter = Duration.seconds(60)
    private static let longestPause = Duration.seconds(30)

    init(_ specification: ChildProcess.Specification, tell: @escaping @Sendable (String) -> Void) {
        self.specification = specification
        self.tell = tell
    }

    var processID: pid_t? { state.withLock { $0.child?.processID } }

    /// Runs the program, and again whenever it died, with growing pauses, until it is told to stop.
    /// - Throws: when running it again cannot help: its configuration is wrong, or its file cannot be executed.
    func run() async throws(FatalError) {
        while true {
            let began = ContinuousClock.now
            let child = try start()
            guard let child else { return }
            let end = await child.wait()
            let isStopping = state.withLock { state in
                state.child = nil
                return state.isStopping
            }
            if isStopping { return }
            if end == .exit(ServiceSupport.ExitCode.configuration.rawValue) {
                throw FatalError(
                    .configuration,
                    "\(specification.name) refuses its configuration\(lastWords(from: state.withLock { $0.logStart }))"
                )
            }
            await pause(after: end, lived: .now - began)
        }
    }

    private func start() throws(FatalError) -> ChildProcess? {
        // Under the lock, so that a stop finds the child or prevents it.
        let result = state.withLock { state -> Result<ChildProcess?, FatalError> in
            guard !state.isStopping else { return .success(nil) }
            do throws(FatalError) {
                state.logStart = specification.logFile.flatMap(FileContents.size) ?? 0
                let child = try ChildProcess(specification)
                state.child = child
                return .success(child)
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    private func pause(after end: ChildProcess.End, lived: Duration) async {
        let task = state.withLock { state -> Task<Void, Never>? in
            guard !state.isStopping else { return nil }
            state.failures = lived > Self.wellAfter ? 1 : state.failures + 1
            let pause = min(.milliseconds(500) * Double(1 << min(state.failures - 1, 10)), Self.longestPause)
            tell(
                "\(specification.name) died (\(end)) after \(Printable.duration(lived.inSeconds)); "
                    + "it is started again in \(Printable.duration(pause.inSeconds))"
                    + lastWords(from: state.logStart)
            )
            let task = Task {
                // Ends early when it is told to stop.
                do { try await Task.sleep(for: pause) } catch {}
            }
            state.pause = task
            return task
        }
        await task?.value
    }

    /// Ends the program: a request, and after a time the end without one. Returns when it has ended.
    func stop(grace: Duration) async {
        let child = state.withLock { state in
            state.isStopping = true
            state.pause?.cancel()
            return state.child
        }
        guard let child else { return }
        child.signal(SIGTERM)
        let killer = Task {
            do {
                try await Task.sleep(for: grace)
                tell("\(specification.name) did not end within \(Printable.duration(grace.inSeconds)); it is killed")
                child.signal(SIGKILL)
            } catch {
                // It ended by itself.
            }
        }
        _ = await child.wait()
        killer.cancel()
    }

    /// Ends the program at once.
    func kill() {
        let child = state.withLock { state in
            state.isStopping = true
            state.pause?.cancel()
            return state.child
        }
        child?.signal(SIGKILL)
    }

    /// The end of what the program logged in its last life; empty when there is nothing.
    private func lastWords(from start: UInt64) -> String {
        guard let path = specification.logFile else { return "" }
        do {
            let bytes = try FileContents.read(path, limit: 64 << 20).dropFirst(Int(clamping: start)).suffix(2000)
            let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n").suffix(3)
            guard !lines.isEmpty else { return "; its log is \(path)" }
            return "; its log, \(path), ends:" + lines.map { "\n    \(Printable.line(String($0)))" }.joined()
        } catch {
            return "; its log is \(path)"
        }
    }
}
