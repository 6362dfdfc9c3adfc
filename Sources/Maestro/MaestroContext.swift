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
    let logger: Logger

    init(settings: MaestroSettings, connection: NATSConnection, incarnation: Incarnation, logger: Logger) {
        self.settings = settings
        self.connection = connection
        self.incarnation = incarnation
        self.logger = logger
        jetStream = JetStream(connection)
        records = RecordStore(jetStream, names: settings.names)
        clock = MonotonicClock()
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
