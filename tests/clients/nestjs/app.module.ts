// An application with everything in the way of webhooks that a NestJS application has.

import { DatabaseSync } from "node:sqlite";
import {
  type CanActivate,
  type ExecutionContext,
  ForbiddenException,
  Global,
  Injectable,
  Module,
  type PipeTransform,
  UnprocessableEntityException,
} from "@nestjs/common";
import { APP_GUARD, APP_PIPE, Reflector } from "@nestjs/core";
import { ThrottlerGuard, ThrottlerModule } from "@nestjs/throttler";
import { type Database, type Manager, SCHEMA } from "./inbox";
import { MatrixWebhooksModule } from "./matrix-webhooks.module";

/** Looks like TypeORM's DataSource from where the inbox stands. */
@Injectable()
class SqliteDatabase implements Database {
  private readonly database = new DatabaseSync(process.env.DATABASE as string);
  private last: Promise<unknown> = Promise.resolve();

  constructor() {
    this.database.exec(SCHEMA);
  }

  /** One after the other: there is but one connection. */
  transaction<T>(work: (manager: Manager) => Promise<T>): Promise<T> {
    const result = this.last.then(() => this.alone(work));
    this.last = result.catch(() => undefined);
    return result;
  }

  private async alone<T>(work: (manager: Manager) => Promise<T>): Promise<T> {
    this.database.exec("BEGIN IMMEDIATE");
    try {
      const result = await work({ query: async (sql, values) => this.run(sql, values) });
      this.database.exec("COMMIT");
      return result;
    } catch (error) {
      this.database.exec("ROLLBACK");
      throw error;
    }
  }

  private run(sql: string, values: unknown[]): unknown {
    const named = values.map((value, index) => [`$${index + 1}`, value as string | number]);
    return this.database.prepare(sql).run(Object.fromEntries(named));
  }
}

@Global()
@Module({ providers: [SqliteDatabase], exports: [SqliteDatabase] })
class DatabaseModule {}

@Injectable()
class OnlyTheLoggedIn implements CanActivate {
  constructor(private readonly reflector: Reflector) {}

  canActivate(context: ExecutionContext): boolean {
    if (this.reflector.getAllAndOverride("isPublic", [context.getHandler(), context.getClass()])) {
      return true;
    }
    throw new ForbiddenException();
  }
}

@Injectable()
class RefusesEveryBody implements PipeTransform {
  transform(): never {
    throw new UnprocessableEntityException();
  }
}

@Module({
  imports: [
    DatabaseModule,
    ThrottlerModule.forRoot([{ ttl: 60_000, limit: 1 }]),
    MatrixWebhooksModule.register(process.env.WEBHOOK_SECRET as string, SqliteDatabase),
  ],
  providers: [
    { provide: APP_GUARD, useClass: ThrottlerGuard },
    { provide: APP_GUARD, useClass: OnlyTheLoggedIn },
    { provide: APP_PIPE, useClass: RefusesEveryBody },
  ],
})
export class AppModule {}
