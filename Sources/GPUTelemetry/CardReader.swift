import Synchronization

/// Reads the sensors of one card.
///
/// Every read happens on the card's own thread, with a deadline: whoever asks for a sample gets one soon, whatever
/// the drivers do.
package final class CardReader: Sendable {
    package let card: Card
    private let limits: ReadingLimits
    private let lane: SensorLane
    private let sensors: CardSensors
    private let watched: WatchedProcesses

    package init(_ card: Card, limits: ReadingLimits = ReadingLimits(), paths: SystemPaths = .machine) {
        self.card = card
        self.limits = limits
        lane = SensorLane(readDeadline: limits.readDeadline)
        watched = WatchedProcesses()
        sensors = CardSensors(card, paths: paths, watched: watched)
    }

    deinit { lane.close() }

    /// Reads everything once. Returns when all is read, or the deadline of the slow ones has passed.
    /// - Parameter processes: the processes whose use of the card is wanted.
    package func sample(processes: [Int32] = []) async -> CardSample {
        watched.set(processes)
        await lane.sweep(sensors.jobs)
        return sensors.sample(of: card, at: .now, maximumAge: limits.maximumAge)
    }

    /// Tries whether the card answers, through handles that are opened anew; wakes it. Blocks until it has, at most for
    /// ``probeDeadline``: then its driver gets one thread less to hold.
    /// - Throws: what the driver says when it refuses to be opened, or that it does not answer.
    package func probe() throws(SensorFault) -> CardSigns {
        let sensors = sensors
        let answer = Bounded.call(within: Self.probeDeadline) { () -> Result<CardSigns, SensorFault> in
            do throws(SensorFault) {
                return .success(try sensors.probe())
            } catch {
                return .failure(error)
            }
        }
        guard let answer else { throw .timedOut }
        return try answer.get()
    }

    /// How long a driver may take to wake the card and to answer.
    package static let probeDeadline = Duration.seconds(10)
}

/// How long readings may take and last.
package struct ReadingLimits: Sendable {
    /// A read that takes longer does not hold up the others.
    package var readDeadline: Duration
    /// A value is told until it is this old.
    package var maximumAge: Duration

    package init(readDeadline: Duration = .milliseconds(200), maximumAge: Duration = .seconds(15)) {
        self.readDeadline = readDeadline
        self.maximumAge = maximumAge
    }
}

/// The processes of the jobs on a card.
final class WatchedProcesses: Sendable {
    private let pids = Mutex<[Int32]>([])
    func set(_ new: [Int32]) { pids.withLock { $0 = new } }
    var now: [Int32] { pids.withLock { $0 } }
}
