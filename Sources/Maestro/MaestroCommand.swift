import ArgumentParser
import JobModel
import JobTransport
import Logging
import NATSClient
import ProgramEntry
import SchedulerCore
import ServiceSupport

/// `maestro`: the scheduler.
@main
struct MaestroCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "maestro",
        abstract: "The scheduler of a Maestro pool: admits jobs, places them on cards, retries and recovers.",
        discussion: """
            Start as many as you like: one leads, the others stand by.

            Configuration is read from /etc/maestro/maestro.conf (or MAESTRO_CONF, or --config), a file of KEY=VALUE \
            lines; environment variables of the same names override it, and flags override both.

            \(MaestroSettings.schema.helpText())
            """,
        version: ProgramVersion.text
    )

    @Option(help: "The configuration file to read.")
    var config: String?

    @Option(
        name: [.customLong("server"), .customLong("nats")],
        help: "Addresses of the NATS servers, between commas (NATS_URL)."
    )
    var natsURL: String?

    @Option(help: "The least important messages to log (LOG_LEVEL).")
    var logLevel: String?

    static func main() async { await runProgram() }

    func run() async throws {
        let settings: MaestroSettings
        do throws(SettingsError) {
            settings = try MaestroSettings(file: config, overrides: overrides)
        } catch {
            throw FatalError(error)
        }
        ServiceLog.bootstrap(level: settings.settings[CommonKeys.logLevel])
        let logger = Logger(label: "maestro")
        for warning in settings.settings.warnings { logger.warning("\(warning)") }
        try await MaestroService(settings: settings, logger: logger).run()
    }

    private var overrides: [Settings.Override] {
        var overrides: [Settings.Override] = []
        if let natsURL { overrides.append(Settings.Override(key: "NATS_URL", flag: "--server", value: natsURL)) }
        if let logLevel { overrides.append(Settings.Override(key: "LOG_LEVEL", flag: "--log-level", value: logLevel)) }
        return overrides
    }
}
