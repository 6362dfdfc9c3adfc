import ArgumentParser
import JobModel
import JobTransport
import NATSClient
import ServiceSupport

/// Where the pool is: the same on every command.
struct PoolOptions: ParsableArguments {
    @Option(
        name: [.customLong("server"), .customLong("nats")],
        help: ArgumentHelp("Addresses of the NATS servers, between commas.", valueName: "url")
    )
    var server: String?

    @Option(help: ArgumentHelp("A configuration file instead of /etc/maestro/maestro.conf.", valueName: "file"))
    var config: String?

    /// The keys that this program reads; those of maestro stand in the same file.
    static let schema = SettingsSchema(
        defaultFile: "/etc/maestro/maestro.conf",
        fileVariable: "MAESTRO_CONF",
        keys: CommonKeys.all + [PoolKeys.idHorizon.declaration, SigningOptions.file.declaration],
        unknownKeys: .ignored
    )

    func settings() throws(FatalError) -> Settings {
        let overrides = server.map { [Settings.Override(key: "NATS_URL", flag: "--server", value: $0)] } ?? []
        do {
            let settings = try Settings(schema: Self.schema, file: config, overrides: overrides)
            try settings.checkConnection()
            return settings
        } catch {
            throw FatalError(error)
        }
    }

    /// A connection to the pool; there is one when this returns.
    func connect() async throws(FatalError) -> PoolClient { try await PoolClient(settings: settings()) }
}

/// A span of time as people type it: `90`, `1.5h`, `10m`.
struct TimeSpan: ExpressibleByArgument, Equatable {
    let seconds: Double

    init(seconds: Double) { self.seconds = seconds }

    init?(argument: String) {
        let units: [Character: Double] = ["s": 1, "m": 60, "h": 3600, "d": 86_400]
        let unit = argument.last.flatMap { units[$0] }
        let number = unit == nil ? Substring(argument) : argument.dropLast()
        guard let value = Double(number), value.isFinite, value >= 0 else { return nil }
        seconds = value * (unit ?? 1)
    }

    var duration: Duration { .inSeconds(seconds) }
}

extension JobID: ExpressibleByArgument {
    package init?(argument: String) { self.init(argument) }
}

extension GPUID: ExpressibleByArgument {
    package init?(argument: String) { self.init(argument) }
}

extension JobState: ExpressibleByArgument {}
