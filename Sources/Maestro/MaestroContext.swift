import JobModel
import JobTransport
import Logging
import NATSClient
import ServiceSupport

/// What every part of a running maestro needs.
struct MaestroContext: Sendable {
    let settings: MaestroSettings
    let connection: NATSConnection
    let jetStream: JetStream
    let records: RecordStore
    let clock: MonotonicClock
    let incarnation: Incarnation
    let day: DayWatch
    /// Where placements are logged, if that is asked for.
    let decisions: DecisionLog?
    let watchdog = LoopWatchdog()
    let logger: Logger

    /// - Throws: what only a person can put right.
    init(
        settings: MaestroSettings,
        connection: NATSConnection,
        incarnation: Incarnation,
        logger: Logger
    ) throws(FatalError) {
        self.settings = settings
        self.connection = connection
        self.incarnation = incarnation
        self.logger = logger
        jetStream = JetStream(connection)
        records = RecordStore(jetStream, names: settings.names)
        clock = MonotonicClock()
        day = DayWatch(connection, names: settings.names, window: settings.dayWindow, logger: logger)
        if let path = settings.decisionLog {
            decisions = try DecisionLog(path: path, logger: logger)
        } else {
            decisions = nil
        }
    }

    var names: PoolNames { settings.names }

    /// Tells something on a subject of events; what cannot be sent now is dropped and logged, since the records tell
    /// the truth without it.
    func tell(_ payload: [UInt8], on subject: String) {
        do throws(NATSError) {
            try connection.publish(payload, to: subject)
        } catch {
            logger.debug("an event was not sent", metadata: ["subject": "\(subject)", "error": "\(error)"])
        }
    }
}
