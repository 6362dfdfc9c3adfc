import JobModel
import Logging
import NATSClient
import ServiceSupport
import Synchronization

/// Whether it is day or night: by the hours of DAY_WINDOW, or by the last message on `circadian.phase` until they change.
///
/// Standbys listen too, so that the next leader knows what was asked for.
final class DayWatch: Sendable {
    private struct State {
        var cycle: DayCycle
        /// Ends when it is let go.
        var subscription: NATSSubscription?
        var listener: (@Sendable (DayPhase) -> Void)?
        /// What the listener was last told.
        var told: DayPhase?
    }

    private let connection: NATSConnection
    private let names: PoolNames
    private let logger: Logger
    private let state: Mutex<State>

    init(_ connection: NATSConnection, names: PoolNames, window: DayWindow, logger: Logger) {
        self.connection = connection
        self.names = names
        self.logger = logger
        state = Mutex(State(cycle: DayCycle(window: window)))
    }

    /// Listens for as long as the connection lasts.
    func start() throws(NATSError) {
        let subscription = try connection.subscribe(names.circadianPhase) { [weak self] in self?.hear($0) }
        state.withLock { $0.subscription = subscription }
    }

    private func hear(_ message: NATSMessage) {
        do throws(MalformedMessage) {
            let phase = try DayPhase(parsing: message.payload)
            state.withLock { $0.cycle.ask(phase, atHour: WallClock.localHour()) }
            tell()
        } catch {
            logger.warning("ignored a message", metadata: ["subject": "\(message.subject)", "reason": "\(error)"])
        }
    }

    /// Tells the listener the phase now and whenever it changes, until the task is cancelled.
    func follow(_ listener: @escaping @Sendable (DayPhase) -> Void) async {
        state.withLock { state in
            state.listener = listener
            state.told = nil
        }
        defer { state.withLock { $0.listener = nil } }
        while !Task.isCancelled {
            tell()
            do {
                // The hours of the wall clock change by themselves; it may be set, and has no alarm here.
                try await Task.sleep(for: .seconds(15))
            } catch {
                return
            }
        }
    }

    private func tell() {
        state.withLock { state in
            let phase = state.cycle.phase(atHour: WallClock.localHour())
            guard let listener = state.listener, state.told != phase else { return }
            state.told = phase
            listener(phase)
        }
    }
}
