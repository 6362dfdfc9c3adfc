import ArgumentParser
import GPUTelemetry
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

    @Option(
        name: [.customLong("server"), .customLong("nats")],
        help: "Addresses of the NATS servers, between commas (NATS_URL)."
    )
    var natsURL: String?

    @Option(help: "The least important messages to log (LOG_LEVEL).")
    var logLevel: String?

    @Flag(help: "Print the cards of this machine, and what is wrong with them or was left out; needs no server.")
    var list = false

    @Flag(help: "With --list: print JSON.")
    var json = false

    @Flag(help: "Print the lines of a systemd unit that wall it to the card GPU_ID.")
    var printDevicePolicy = false

    /// As a service it has no arguments; then nothing of the parser, nor of Foundation below it, is ever touched.
    static func main() async {
        guard CommandLine.argc == 1 else { return await runProgram() }
        do throws(FatalError) {
            try await serve(file: nil, overrides: [])
        } catch {
            error.exit(program: "gpu-worker")
        }
    }

    func run() async throws {
        if list {
            try await printCards()
        } else if printDevicePolicy {
            try await printPolicy()
        } else {
            try await Self.serve(file: config, overrides: overrides)
        }
    }

    private func printCards() async throws(FatalError) {
        let settings: Settings
        do throws(SettingsError) {
            settings = try Settings(schema: WorkerSettings.schema, file: config, overrides: overrides)
        } catch {
            throw FatalError(error)
        }
        let inventory = await CardChoice.inventory(try CardChoice.rules(settings))
        print(json ? String(decoding: inventory.json.encoded(), as: UTF8.self) : inventory.table)
    }

    private func printPolicy() async throws(FatalError) {
        let settings = try Self.loadedSettings(file: config, overrides: overrides)
        let inventory = await CardChoice.inventory(try CardChoice.rules(settings.settings))
        guard !inventory.cards.isEmpty else {
            return print(DevicePolicy.processorLines.joined(separator: "\n"))
        }
        do throws(InventoryError) {
            print(DevicePolicy.lines(for: try inventory.card(settings.number)).joined(separator: "\n"))
        } catch {
            throw FatalError(.configuration, error.description)
        }
    }

    private static func loadedSettings(
        file: String?,
        overrides: [Settings.Override]
    ) throws(FatalError) -> WorkerSettings {
        do throws(SettingsError) {
            return try WorkerSettings(file: file, overrides: overrides)
        } catch {
            throw FatalError(error)
        }
    }

    private static func serve(file: String?, overrides: [Settings.Override]) async throws(FatalError) {
        let settings = try loadedSettings(file: file, overrides: overrides)
        ServiceLog.bootstrap(level: settings.settings[CommonKeys.logLevel])
        let logger = Logger(label: "gpu-worker")
        for warning in settings.settings.warnings { logger.warning("\(warning)") }
        try await WorkerService(settings: settings, logger: logger).run()
    }

    private var overrides: [Settings.Override] {
        var overrides: [Settings.Override] = []
        if let gpu { overrides.append(Settings.Override(key: "GPU_ID", flag: "--gpu", value: gpu)) }
        if let slots { overrides.append(Settings.Override(key: "SLOTS", flag: "--slots", value: slots)) }
        if let natsURL { overrides.append(Settings.Override(key: "NATS_URL", flag: "--server", value: natsURL)) }
        if let logLevel { overrides.append(Settings.Override(key: "LOG_LEVEL", flag: "--log-level", value: logLevel)) }
        return overrides
    }
}
