import ArgumentParser
import JobModel
import Logging
import ProgramEntry
import ServiceSupport

/// `gpu-worker`: runs the jobs of one card.
@main
struct WorkerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gpu-worker",
        abstract: "Runs the jobs of one card of a Maestro pool.",
        usage: "gpu-worker [options]",
        discussion: """
            Start one for each card, with GPU_ID set to the card's number (systemd: gpu-worker@N).

            Configuration is read from /etc/maestro/gpu-worker.conf (or GPU_WORKER_CONF, or --config), a file of \
            KEY=VALUE lines; environment variables of the same names override it, and flags override both.

            \(WorkerSettings.schema.helpText())
            """,
        version: ProgramVersion.text
    )

    @Option(help: "The configuration file to read.")
    var config: String?

    @Option(name: .customLong("gpu"), help: "The number of the card (GPU_ID).")
    var gpu: String?

    @Option(help: "Jobs that may run on the card at once (SLOTS).")
    var slots: String?

    @Option(name: .customLong("nats"), help: "Addresses of the NATS servers, between commas (NATS_URL).")
    var natsURL: String?

    @Option(help: "The least important messages to log (LOG_LEVEL).")
    var logLevel: String?

    static func main() async { await runProgram() }

    func run() async throws {
        let settings: WorkerSettings
        do throws(SettingsError) {
            settings = try WorkerSettings(file: config, overrides: overrides)
        } catch {
            throw FatalError(error)
        }
        ServiceLog.bootstrap(level: settings.settings[CommonKeys.logLevel])
        let logger = Logger(label: "gpu-worker")
        for warning in settings.settings.warnings { logger.warning("\(warning)") }
        try await WorkerService(settings: settings, logger: logger).run()
    }

    private var overrides: [Settings.Override] {
        var overrides: [Settings.Override] = []
        if let gpu { overrides.append(Settings.Override(key: "GPU_ID", flag: "--gpu", value: gpu)) }
        if let slots { overrides.append(Settings.Override(key: "SLOTS", flag: "--slots", value: slots)) }
        if let natsURL { overrides.append(Settings.Override(key: "NATS_URL", flag: "--nats", value: natsURL)) }
        if let logLevel { overrides.append(Settings.Override(key: "LOG_LEVEL", flag: "--log-level", value: logLevel)) }
        return overrides
    }
}
